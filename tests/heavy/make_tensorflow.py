"""SavedModels: two signatures of one, a vocabulary, text, rows of free length, a mixing of rows, a fixed batch."""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from keeping import ROWS, Keep

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
FILES = ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001")
CLOSE = (1e-5, 1e-6)


class Shop(tf.Module):
    def __init__(self):
        super().__init__()
        vocabulary = Path(sys.argv[1]) / "vocabulary.txt"
        vocabulary.write_text("red\ngreen\nblue\n")
        self.vocabulary = tf.saved_model.Asset(str(vocabulary))
        lines = tf.lookup.TextFileInitializer(
            self.vocabulary,
            *(tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER),
        )
        self.table = tf.lookup.StaticHashTable(lines, default_value=-1)
        self.weights = tf.Variable(tf.random.stateless_normal([4, 3], seed=(1, 2)))
        self.prices = tf.Variable([1.0, 2.5, 4.0, -1.0])

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="features")])
    def classify(self, features):
        scores = tf.nn.softmax(features @ self.weights)
        return {"class": tf.argmax(scores, -1), "scores": scores}

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="colour"),
            tf.TensorSpec([None, None], tf.int32, name="amounts"),
        ]
    )
    def price(self, colour, amounts):
        one = tf.gather(self.prices, self.table.lookup(colour) % 4)
        total = tf.cast(tf.reduce_sum(amounts, 1), tf.float32) * one
        return {"total": total, "colour": tf.strings.upper(colour)}


shop = Shop()
tf.saved_model.save(shop, f"{keep.folder}/shop", signatures={"serving_default": shop.classify, "price": shop.price})
features = random.standard_normal((ROWS, 4)).astype(np.float32)
keep(
    "default-signature",
    "shop",
    format="tensorflow",
    rows={"features": features},
    expected={name: value.numpy() for name, value in shop.classify(features).items()},
    split=CLOSE,
    essential=FILES,
    inputs={"features": ["FP32", -1, 4]},
    served=True,
    after="import tensorflow as tf; assert tf.config.threading.get_intra_op_parallelism_threads() == 1",
)
colours = random.choice(["red", "green", "blue", "grün", ""], ROWS).astype(object)
amounts = random.integers(0, 9, (ROWS, 5)).astype(np.int32)
keep(
    "named-signature",
    "shop#price",
    format="tensorflow",
    rows={"colour": colours, "amounts": amounts},
    expected={name: value.numpy() for name, value in shop.price(tf.constant(colours), amounts).items()},
    damage=False,
    inputs={"colour": ["BYTES", -1], "amounts": ["INT32", -1, -1]},
    served=True,
)


class Mixes(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([None, 3], tf.float32, name="points")])
    def __call__(self, points):
        return {"centred": points - tf.reduce_mean(points, 0)}


class Fixed(tf.Module):
    @tf.function(input_signature=[tf.TensorSpec([2, 3], tf.float64, name="pair")])
    def __call__(self, pair):
        return {"doubled": pair * 2}


points = random.standard_normal((ROWS, 3)).astype(np.float32)
for name, module, rows in (("mixed-rows", Mixes(), points), ("fixed-batch", Fixed(), points.astype(np.float64))):
    tf.saved_model.save(module, f"{keep.folder}/{name}")
    input_name = module.__call__.function_spec.arg_names[0]
    step = 2 if name == "fixed-batch" else ROWS
    answers = [module(rows[at : at + step]) for at in range(0, ROWS, step)]
    keep(
        name,
        name,
        format="tensorflow",
        rows={input_name: rows},
        expected={key: np.concatenate([answer[key].numpy() for answer in answers]) for key in answers[0]},
        batched=name == "fixed-batch",
        few=step,
        damage=False,
    )
