"""What a model asks for is found where its makers put it, and nothing else that stands there is followed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.core.errors import EnvironmentFailed
from turnout.deploy.environments.build import check
from turnout.deploy.environments.environment import IndexPolicy, Requirements
from turnout.deploy.environments.lines import canonical
from turnout.deploy.environments.requirements import requirements_of

HASH = f"sha256:{'0a' * 32}"
PYTHON_ENV = """\
python: 3.11.7
build_dependencies:
- pip==23.2.1
- setuptools==65.5.0
- wheel==0.41.0
dependencies:
- -r requirements.txt
"""
CONDA = """\
channels:
- conda-forge
dependencies:
- python=3.12.4
- pip<=23.2.1
- pip:
  - mlflow==3.1.0
  - scikit-learn==1.5.0
name: mlflow-env
"""


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_txt", ".txt").replace("_lock", ".lock").replace("_yaml", ".yaml")).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("Numpy >= 1.2 , <2", "numpy<2,>=1.2"),
        ('torch[cpu, B_b]==2.1+cpu;python_version<"3.12"', "torch[b-b,cpu]==2.1+cpu ; python_version<'3.12'"),
        ("scikit_learn (>=1)", "scikit-learn>=1"),
        ("zope.interface", "zope-interface"),
        ("a==1.* ; extra == 'x' and sys_platform != 'win32'", "a==1.* ; extra == 'x' and sys_platform != 'win32'"),
        (f"a==1 --hash={HASH.upper().replace('SHA', 'sha')} --hash {HASH}", f"a==1 --hash={HASH}"),
    ],
)
def test_one_form_for_each_requirement(line: str, form: str) -> None:
    assert canonical(line, "x") == form
    assert canonical(form, "x") == form


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-e .", "would install source code from a path"),
        ("--editable=git+https://host/x", "would install source code from a path"),
        ("git+https://user:word@host/x", r"'git\+https://\*\*\*@host/x' points at a source repository"),
        ("x @ git+ssh://git@host/x", "points at a source repository"),
        ("x @ https://host/x-1-py3-none-any.whl", "points at an address of its own"),
        ("https://host/x-1.tar.gz", "points at an address of its own"),
        ("./x", "points at a local file"),
        ("x-1-py3-none-any.whl", "points at a local file"),
        ("../../etc/x.tar.gz", "points at a local file"),
        ("--pre", "is an option that is not taken from a model"),
        ("x==${VERSION}", "names an environment variable"),
        ("x y", "is no requirement; expected a name with versions"),
        ("x; $(touch y)", "is no requirement"),
        ("x==1`touch y`", "is no requirement"),
        ("x\x00", "is no requirement"),
        (f"{'x' * 5000}", "is no requirement"),
        ("x==1 --hash=md5:abc", "the hash md5:abc of x is none; expected sha256"),
        ("x==1 --hash=sha256:abc", "the hash sha256:abc of x is none"),
    ],
)
def test_what_reaches_beyond_an_index_is_refused_by_name(line: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFailed, match=f"the spec: .*{said}"):
        requirements_of(tmp_path, [line])


@given(st.text() | st.text("abz-._=<>!~;[]()'\"@:/$`|&\\ \n\r\t0#{}+*,", min_size=1))
def test_whatever_is_written_becomes_one_plain_line_or_is_refused(text: str) -> None:
    try:
        form = canonical(text, "x")
    except EnvironmentFailed:
        return
    assert form.isprintable()
    assert form[0].isalnum()
    assert not {"@", "/", "\\", "$", "`", "&", "#", ":"} & set(re.sub(r" --hash=\w+:", "", form))
    assert canonical(form, "x") == form


def test_nothing_said_is_none_and_an_empty_list_is_nothing_wanted(tmp_path: Path) -> None:
    assert requirements_of(tmp_path) is None
    assert requirements_of(tmp_path, []) == Requirements(())


def test_a_requirements_file_as_pip_reads_it(tmp_path: Path) -> None:
    write(
        tmp_path,
        requirements_txt=(
            f"# a comment\n\nnumpy==1.26.4 \\\n    --hash={HASH}  # why\n-r more.txt\n-c limits.txt\nPandas\n"
            "--prefer-binary\n"
        ),
        more_txt="numpy==1.26.4 --hash=" + HASH + "\n",
        limits_txt="pandas<3\n-r deeper.txt\n",
        deeper_txt="scipy<2\n",
    )
    found = requirements_of(tmp_path / "model.onnx")
    assert found == Requirements(
        (f"numpy==1.26.4 --hash={HASH}", "pandas"), "", "requirements.txt", ("pandas<3", "scipy<2")
    )


def test_the_order_in_which_files_are_found(tmp_path: Path) -> None:
    write(tmp_path, conda_yaml=CONDA)
    assert requirements_of(tmp_path) == Requirements(("mlflow==3.1.0", "scikit-learn==1.5.0"), "3.12", "conda.yaml")
    write(tmp_path, requirements_txt="joblib")
    assert requirements_of(tmp_path) == Requirements(("joblib",), "3.12", "requirements.txt")
    write(tmp_path, python_env_yaml=PYTHON_ENV)
    assert requirements_of(tmp_path) == Requirements(("joblib",), "3.11", "python_env.yaml")
    write(tmp_path, requirements_lock=f"joblib==1 --hash={HASH}")
    assert requirements_of(tmp_path) == Requirements((f"joblib==1 --hash={HASH}",), "3.11", "requirements.lock")
    assert requirements_of(tmp_path, ["scipy"]) == Requirements(("scipy",))


@pytest.mark.parametrize(("name", "origin"), [("python_env_yaml", "python_env.yaml"), ("conda_yaml", "conda.yaml")])
def test_a_file_that_the_spec_names_is_read_by_what_it_is(name: str, origin: str, tmp_path: Path) -> None:
    write(tmp_path, conda_yaml=CONDA, python_env_yaml=PYTHON_ENV, requirements_txt="joblib")
    found = requirements_of(Path("elsewhere"), tmp_path / origin)
    assert found is not None
    assert found.origin == origin
    assert found.python == ("3.11" if origin == "python_env.yaml" else "3.12")


@pytest.mark.parametrize(
    ("entry", "line"),
    [
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy=1.26.4=py311h64a7726_0", "numpy==1.26.4"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy 1.26.4", "numpy==1.26.4"),
        ("numpy>=1.26,<2", "numpy<2,>=1.26"),
        ("numpy", "numpy"),
        ("numpy=*", "numpy"),
        ("conda-forge::pytorch>=2.1", "torch>=2.1"),
        ("py-xgboost=2.1.1", "xgboost==2.1.1.*"),
    ],
)
def test_conda_packages_that_an_index_has_too(entry: str, line: str, tmp_path: Path) -> None:
    write(tmp_path, conda_yaml=f"dependencies:\n- '{entry}'\n")
    found = requirements_of(tmp_path)
    assert found is not None
    assert found.lines == (line,)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dependencies: [libgdal=3.6, _openmp_mutex=4.5, numpy]", "libgdal, _openmp_mutex have no certain counterpart"),
        ("dependencies: ['numpy=1.26|1.27']", "cannot be taken over exactly"),
        ("dependencies: [python=2]", "expected a version such as 3.11.7; got '=2'"),
        ("dependencies: {numpy: 1}", "dependencies: expected a list; got dict"),
        ("- numpy", "expected a mapping with dependencies; got list"),
        ("dependencies: [3]", "expected packages and one pip list; got 3"),
        ("dependencies: [{pip: numpy}]", "pip: expected a list of requirements; got 'numpy'"),
        ("dependencies: [", "not YAML"),
    ],
)
def test_conda_files_that_cannot_be_taken(text: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, conda_yaml=text)
    with pytest.raises(EnvironmentFailed, match=f"conda.yaml.*{said}"):
        requirements_of(tmp_path)


def test_a_python_version_that_yaml_has_shortened(tmp_path: Path) -> None:
    write(tmp_path, python_env_yaml="python: 3.10\n")
    with pytest.raises(EnvironmentFailed, match=r"3\.1 may mean 3\.1 or 3\.10; write it in quotes"):
        requirements_of(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("-r /etc/passwd", "'/etc/passwd' lies outside of the model's directory"),
        ("-r ../secret.txt", r"'\.\./secret\.txt' lies outside"),
        ("-c link.txt", r"'link\.txt' lies outside"),
        ("-r none.txt", r"there is no file 'none\.txt' beside it"),
        ("-r requirements.txt", "name each other more than 8 deep"),
        ("--no-binary :all:", "the option --no-binary is not taken from a model"),
        ("numpy\xff", "no text in UTF-8"),
    ],
)
def test_files_of_a_model_stay_inside_it(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("password")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "requirements.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(EnvironmentFailed, match=f"requirements.txt.*{said}"):
        requirements_of(folder)


@pytest.mark.parametrize(
    "place", ["--index-url https://a.example/simple", "--extra-index-url=https://a.example", "-f wheels", "-i x"]
)
def test_a_model_does_not_choose_its_indexes(place: str, tmp_path: Path) -> None:
    write(tmp_path, requirements_txt=f"{place}\nnumpy\n")
    found = requirements_of(tmp_path)
    assert found == Requirements(("numpy",), "", "requirements.txt", (), (place,))
    with pytest.raises(EnvironmentFailed, match="a model does not choose where packages come from"):
        check(found, IndexPolicy(), print)
    said: list[str] = []
    check(found, IndexPolicy(("https://ours.example",), public=False), said.append)
    assert said == [f"requirements.txt says {place!r}: ignored, only the named places are asked"]


@pytest.mark.parametrize(
    ("lines", "required", "said"),
    [
        ((f"a==1 --hash={HASH}", "b==2"), False, "'b==2' has no hash, and the other lines have hashes"),
        (("a==1",), True, "'a==1' has no hash, and hashes are required"),
        ((f"a==1 --hash={HASH}",), True, "numpy, which every worker needs, is not among them"),
        ((f"a>=1 --hash={HASH}",), False, "a has hashes but no one version"),
        ((f"a==1.* --hash={HASH}",), False, "a has hashes but no one version"),
    ],
)
def test_locks_that_lock_nothing(lines: tuple[str, ...], required: bool, said: str) -> None:
    with pytest.raises(EnvironmentFailed, match=said):
        check(Requirements(lines), IndexPolicy(require_hashes=required), print)
    check(Requirements((f"a[x]==1 ; python_version > '3' --hash={HASH}",)), IndexPolicy(), print)
