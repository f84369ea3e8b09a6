"""Hugging Face `transformers` directories: text goes in, and what the architecture is for comes out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from turnout.core.errors import LoadFailed
from turnout.core.servable import Model
from turnout.core.signature import Signature, TensorSpec
from turnout.core.tensors import Array, Tensors, as_text, join_rows
from turnout.formats import transformers_files as files
from turnout.formats import transformers_tasks as tasks
from turnout.formats.artifact import Artifact, LoadOptions
from turnout.formats.quiet import quiet_import
from turnout.formats.refusals import library, loading

_KIND = "a Hugging Face model"
TEXT, PAIR = "text", "text_pair"
#: Rows that run together, padded to the longest of them.
_ROWS = 32
#: Tokens that a text is cut to where neither model nor tokenizer says how many it takes.
_TOKENS = 512

Answer = Callable[[Array, tasks.Tokens], Mapping[str, Array]]


class _Task(NamedTuple):
    """An architecture's ending, the class that loads it, and the name of what it gives."""

    loader: str
    gives: str


TASKS = {
    "ForSequenceClassification": _Task("AutoModelForSequenceClassification", "logits"),
    "ForTokenClassification": _Task("AutoModelForTokenClassification", "logits"),
    "Model": _Task("AutoModel", "last_hidden_state"),
}


class Transformers:
    """The Hugging Face format."""

    name = "transformers"
    extra = "transformers"
    suffixes = ()

    def recognise(self, artifact: Artifact) -> bool:
        """Whether this is a directory with a config.json and weights."""
        return artifact.is_directory and files.is_model(artifact)

    def load(self, artifact: Artifact, options: LoadOptions) -> Model:
        """The model with its tokenizer. Code in the directory is never run; pickled weights only where trusted."""
        ending, task = _task(files.architecture(artifact), artifact)
        files.check_weights(artifact, trusted=options.trust_pickle)
        what = f"{artifact.label} ({_KIND})"
        os.environ.setdefault("HF_HUB_OFFLINE", "1")  # what is loaded is here; nothing is asked of a hub
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true" if options.threads > 1 else "false")
        with quiet_import():
            torch = library("torch", what)
            transformers = library("transformers", what)
        torch.set_num_threads(options.threads)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        where = {"local_files_only": True, "trust_remote_code": False}
        with loading(artifact, _KIND), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokenizer = transformers.AutoTokenizer.from_pretrained(str(artifact.file), **where)
            network, report = getattr(transformers, task.loader).from_pretrained(
                str(artifact.file),
                use_safetensors=None if options.trust_pickle else True,
                output_loading_info=True,
                **where,
            )
            absent = sorted(report["missing_keys"])
            if absent and not (ending == "Model" and all("pooler" in name for name in absent)):
                raise LoadFailed(
                    f"{artifact.label}: the weights lack {', '.join(absent[:4])}; they are of another model"
                )
            return TransformersModel(torch, tokenizer, network.eval(), ending, artifact)


def _task(architecture: str, artifact: Artifact) -> tuple[str, _Task]:
    for ending, task in TASKS.items():
        if architecture.endswith(ending):
            return ending, task
    raise LoadFailed(
        f"{artifact.label} is a {architecture}; served are architectures that end in {', '.join(TASKS)} and take text. "
        "Others: a directory with a model.py whose class has predict and loads this one"
    )


class TransformersModel:
    """Tokenizes, runs rows of similar length together, and gives each row its answer."""

    __slots__ = (
        "_answer",
        "_gives",
        "_inference",
        "_limit",
        "_network",
        "_takes",
        "_tensor",
        "_tokenizer",
        "signature",
    )

    def __init__(self, torch: Any, tokenizer: Any, network: Any, ending: str, artifact: Artifact) -> None:
        self._tokenizer = tokenizer
        self._network = network
        self._inference = torch.inference_mode
        self._tensor = torch.from_numpy
        self._gives = TASKS[ending].gives
        self._takes = frozenset(tokenizer.model_input_names)
        files.check_tokenizer(artifact, tokenizer.vocab_files_names)
        if len(tokenizer) > network.config.vocab_size:
            raise LoadFailed(
                f"{artifact.label}: its tokenizer has {len(tokenizer)} tokens and the model "
                f"{network.config.vocab_size}: they are not of the same model"
            )
        if tokenizer.pad_token is None:
            raise LoadFailed(f"{artifact.label}: its tokenizer has no padding token; set one and save it again")
        said = [getattr(network.config, "max_position_embeddings", None), tokenizer.model_max_length]
        known = [limit for limit in said if isinstance(limit, int) and 0 < limit < 1_000_000]
        offset = 2 if network.config.model_type in {"roberta", "xlm-roberta", "camembert"} else 0
        self._limit = min(known) - (offset if said[0] in known and min(known) == said[0] else 0) if known else _TOKENS
        inputs = [TensorSpec(TEXT, "BYTES", (-1,), (TEXT,))]
        self._answer: Answer
        if ending == "ForSequenceClassification":
            labels = tasks.Labels.of(network.config)
            inputs.append(TensorSpec(PAIR, "BYTES", (-1,), (PAIR,), optional=True))
            outputs = tasks.classified_specs(labels)
            self._answer = lambda given, _: tasks.classified(given, labels)
        elif ending == "ForTokenClassification":
            outputs = tasks.ENTITIES
            self._answer = partial(_entities, tasks.Labels.of(network.config))
        else:
            pooling = files.pooling_of(artifact)
            outputs = (TensorSpec("embedding", "FP32", (-1, network.config.hidden_size)),)
            self._answer = lambda given, tokens: tasks.embedded(given, tokens.mask, pooling)
        self.signature = Signature(tuple(inputs), outputs)

    def predict(self, inputs: Tensors) -> Tensors:
        """The answers, row by row. Texts that are too long are cut at what the model takes."""
        texts = as_text(inputs[TEXT]).tolist()
        pairs = as_text(inputs[PAIR]).tolist() if PAIR in inputs else None
        if len(texts) <= _ROWS:
            return self._run(texts, pairs)
        order = sorted(range(len(texts)), key=lambda at: len(texts[at]))  # rows of similar length need little padding
        parts = []
        for start in range(0, len(order), _ROWS):
            chosen = order[start : start + _ROWS]
            parts.append(self._run([texts[i] for i in chosen], pairs and [pairs[i] for i in chosen]))
        back = np.argsort(np.array(order))
        return {name: array[back] for name, array in join_rows(parts).items()}

    def _run(self, texts: list[str], pairs: list[str] | None) -> Mapping[str, Array]:
        fast = self._tokenizer.is_fast
        made = self._tokenizer(
            texts,
            pairs,
            padding=True,
            truncation=True,
            max_length=self._limit,
            return_tensors="np",
            return_attention_mask=True,
            return_special_tokens_mask=True,
            return_offsets_mapping=fast,
        )
        given = {name: self._tensor(np.asarray(made[name], np.int64)) for name in self._takes if name in made}
        with self._inference():
            answer = getattr(self._network(**given), self._gives).float().numpy()
        words = [self._tokenizer.convert_ids_to_tokens(row) for row in made["input_ids"]]
        tokens = tasks.Tokens(
            np.asarray(made["attention_mask"], bool),
            np.asarray(made["special_tokens_mask"], bool),
            np.asarray(made["offset_mapping"]) if fast else None,
            words,
        )
        return self._answer(answer, tokens)


def _entities(labels: tasks.Labels, given: Array, tokens: tasks.Tokens) -> Mapping[str, Array]:
    return tasks.entities(given, labels, tokens)
