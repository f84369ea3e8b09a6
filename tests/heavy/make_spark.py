"""A pipeline with categories and a label, and a model of vectors alone."""

from __future__ import annotations

import os
import sys

os.environ["PYSPARK_PYTHON"] = sys.executable
os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"

import numpy as np
import pandas as pd
from keeping import ROWS, Keep
from pyspark.ml import Pipeline
from pyspark.ml.classification import LogisticRegression
from pyspark.ml.feature import IndexToString, OneHotEncoder, SQLTransformer, StringIndexer, VectorAssembler
from pyspark.ml.functions import vector_to_array
from pyspark.ml.regression import DecisionTreeRegressor
from pyspark.sql import SparkSession

keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
frame = pd.DataFrame({"a": random.standard_normal(ROWS), "b": random.standard_normal(ROWS)})
frame["size"] = random.choice(["lo", "mid", "hi"], ROWS)
frame["answer"] = np.where(frame.a + (frame["size"] == "hi") + random.standard_normal(ROWS) > 0.3, "yes", "no")
frame["number"] = frame.a * 2 + frame.b

spark = SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
given = spark.createDataFrame(frame)
stages = [
    StringIndexer(inputCol="size", outputCol="size index"),
    StringIndexer(inputCol="answer", outputCol="label"),
    OneHotEncoder(inputCols=["size index"], outputCols=["size vector"]),
    VectorAssembler(inputCols=["a", "b", "size vector"], outputCol="features"),
    LogisticRegression(),
    IndexToString(inputCol="prediction", outputCol="said", labels=["no", "yes"]),
]
fitted = Pipeline(stages=stages).fit(given)
fitted.save(f"{keep.folder}/pipeline")
found = fitted.transform(given.drop("answer"))
found = found.select("prediction", vector_to_array("probability").alias("probability"), "said").toPandas()
keep(
    "spark-pipeline",
    "pipeline",
    format="spark",
    rows={"size": frame["size"].to_numpy(object), "a": frame.a.to_numpy(), "b": frame.b.to_numpy()},
    expected={
        "prediction": found.prediction.to_numpy(),
        "probability": np.array(found.probability.tolist()),
        "said": found.said.to_numpy(str),
    },
    damage=False,
    inputs={"size": ["BYTES", -1], "a": ["FP64", -1], "b": ["FP64", -1]},
    few=3,
)
vectors = VectorAssembler(inputCols=["a", "b"], outputCol="features").transform(given)
tree = DecisionTreeRegressor(labelCol="number", maxDepth=3).fit(vectors)
tree.save(f"{keep.folder}/tree")
for checksum in (keep.folder / "tree").rglob(".*.crc"):
    checksum.unlink()
keep(
    "spark-tree",
    "tree",
    format="spark",
    rows={"features": frame[["a", "b"]].to_numpy()},
    expected={"prediction": tree.transform(vectors).select("prediction").toPandas().prediction.to_numpy()},
    inputs={"features": ["FP64", -1, 2]},
    few=3,
    essential=[str(path.relative_to(keep.folder / "tree")) for path in (keep.folder / "tree").rglob("part-*")],
)
SQLTransformer(statement="SELECT *, reflect('java.lang.System', 'getProperty', 'user.home') FROM __THIS__").save(
    f"{keep.folder}/sql"
)
spark.stop()
