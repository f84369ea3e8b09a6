"""Keras models on the backend of the environment: packed, unpacked, several inputs and outputs, text where it can."""

from __future__ import annotations

import os
import sys
import zipfile

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ.setdefault("KERAS_BACKEND", sys.argv[2])

import keras
import numpy as np
from keeping import ROWS, Keep

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
keras.utils.set_random_seed(0)
CLOSE = (1e-5, 1e-6)

features = random.standard_normal((ROWS, 4)).astype(np.float32)
classes = (features.sum(1) > 0).astype(np.int32) + (features[:, 0] > 1)
classifier = keras.Sequential(
    [
        keras.Input((4,), name="features"),
        keras.layers.Dense(8, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(3, activation="softmax", name="probabilities"),
    ]
)
classifier.compile("adam", "sparse_categorical_crossentropy")
classifier.fit(features, classes, epochs=2, verbose=0)
classifier.save(f"{keep.folder}/classifier.keras")
with zipfile.ZipFile(f"{keep.folder}/classifier.keras") as archive:
    archive.extractall(f"{keep.folder}/unpacked")
for name, artifact in (("classifier", "classifier.keras"), ("unpacked", "unpacked")):
    keep(
        name,
        artifact,
        format="keras",
        rows={"features": features},
        expected={"probabilities": classifier.predict(features, batch_size=ROWS, verbose=0)},
        tolerance=CLOSE,
        inputs={"features": ["FP32", -1, 4]},
        served=name == "classifier",
        damage=name == "classifier",
        wrong_suffix=".onnx" if name == "classifier" else None,
    )

numbers, words = keras.Input((4,), name="numbers"), keras.Input((None,), dtype="int32", name="words")
joined = keras.layers.Concatenate()(
    [
        keras.layers.Dense(5, activation="tanh")(numbers),
        keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(10, 3)(words)),
    ]
)
two = keras.Model(
    {"numbers": numbers, "words": words},
    {"price": keras.layers.Dense(1)(joined), "class": keras.layers.Dense(2, activation="softmax")(joined)},
)
two.save(f"{keep.folder}/two.keras")
given = {"numbers": features, "words": random.integers(0, 10, (ROWS, 6)).astype(np.int32)}
keep(
    "two-inputs",
    "two.keras",
    format="keras",
    rows=given,
    expected=two.predict(given, batch_size=ROWS, verbose=0),
    tolerance=CLOSE,
    inputs={"numbers": ["FP32", -1, 4], "words": ["INT32", -1, -1]},
    served=True,
    damage=False,
)

if keras.backend.backend() == "tensorflow":  # the others have no text
    colour = keras.Input((), dtype="string", name="colour")
    known = keras.layers.StringLookup(vocabulary=["red", "green"], output_mode="one_hot")(colour)
    text = keras.Model(colour, keras.layers.Dense(2, name="liked")(known))
    text.save(f"{keep.folder}/text.keras")
    colours = random.choice(["red", "green", "grün", ""], ROWS).astype(object)
    keep(
        "text",
        "text.keras",
        format="keras",
        rows={"colour": colours},
        expected={"liked": text(keras.ops.convert_to_tensor(colours)).numpy()},
        tolerance=CLOSE,
        inputs={"colour": ["BYTES", -1]},
        damage=False,
    )
    classifier.save(f"{keep.folder}/old.h5")
    keep(
        "old-form-trusted",
        "old.h5",
        format="keras",
        rows={"features": features},
        expected={"probabilities": classifier.predict(features, batch_size=ROWS, verbose=0)},
        tolerance=CLOSE,
        trust_pickle=True,
        damage=False,
    )
