"""Hugging Face directories of a tiny BERT: a classifier, a regressor, several labels at once, tokens, embeddings."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import transformers
from keeping import ROWS, Keep

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
keep = Keep(sys.argv[1])
random = np.random.default_rng(0)
CLOSE = (1e-4, 1e-5)
TEXT = "the a cat dog sat on mat red blue green good bad film ran was not very city in paris london berlin ##s"
WORDS = TEXT.split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
vocabulary = Path(sys.argv[1]) / "vocab.txt"
vocabulary.write_text("\n".join(SPECIAL + WORDS))
tokenizer = transformers.BertTokenizerFast(str(vocabulary))
texts = [" ".join(random.choice(WORDS[:-1], random.integers(1, 30))) for _ in range(ROWS - 2)] + ["", "Zürich " * 90]
pairs = [" ".join(random.choice(WORDS[:-1], random.integers(1, 9))) for _ in range(ROWS)]


def config(**facts):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    return transformers.BertConfig(
        vocab_size=len(SPECIAL + WORDS), max_position_embeddings=64, initializer_range=0.5, **sizes, **facts
    )


def saved(name, kind, **facts):
    torch.manual_seed(0)
    model = getattr(transformers, kind)(config(**facts)).eval()
    folder = Path(sys.argv[1]) / name
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model, folder


def numbers(model, gives, *given):
    """The model's numbers for each text by itself, as the framework gives them."""
    with torch.inference_mode():
        return [
            getattr(model(**tokenizer(*row, truncation=True, max_length=64, return_tensors="pt")), gives)[0].numpy()
            for row in zip(*given, strict=True)
        ]


def softmax(logits):
    return torch.softmax(torch.from_numpy(logits), -1).numpy()


names = {0: "bad", 1: "fair", 2: "good"}
model, _ = saved(
    "classifier", "BertForSequenceClassification", id2label=names, label2id={v: k for k, v in names.items()}
)
logits = np.stack(numbers(model, "logits", texts))
keep(
    "classifier",
    "classifier",
    format="transformers",
    rows={"text": np.array(texts, dtype=object)},
    expected={
        "label": np.array([names[at] for at in logits.argmax(1)], dtype=object),
        "probabilities": softmax(logits),
    },
    tolerance=CLOSE,
    inputs={"text": ["BYTES", -1], "text_pair": ["BYTES", -1]},
    served=True,
    essential=["config.json", "model.safetensors", "tokenizer.json"],
    after="import torch; assert torch.get_num_threads() == 1",
)
logits = np.stack(numbers(model, "logits", texts, pairs))
keep(
    "pairs",
    "classifier",
    format="transformers",
    rows={"text": np.array(texts, dtype=object), "text_pair": np.array(pairs, dtype=object)},
    expected={"probabilities": softmax(logits)},
    tolerance=CLOSE,
    damage=False,
)
model, _ = saved("regressor", "BertForSequenceClassification", num_labels=1, problem_type="regression")
keep(
    "regressor",
    "regressor",
    format="transformers",
    rows={"text": np.array(texts, dtype=object)},
    expected={"prediction": np.stack(numbers(model, "logits", texts))[:, 0]},
    tolerance=CLOSE,
    damage=False,
)
model, _ = saved("labels", "BertForSequenceClassification", num_labels=4, problem_type="multi_label_classification")
keep(
    "several-labels",
    "labels",
    format="transformers",
    rows={"text": np.array(texts, dtype=object)},
    expected={"probabilities": 1 / (1 + np.exp(-np.stack(numbers(model, "logits", texts))))},
    tolerance=CLOSE,
    damage=False,
)

model, _ = saved("tokens", "BertForTokenClassification", id2label={0: "O", 1: "PLACE"}, label2id={"O": 0, "PLACE": 1})
pipeline = transformers.pipeline("token-classification", model=model, tokenizer=tokenizer)
entities = [
    json.dumps(
        [
            {
                "entity": one["entity"],
                "score": round(float(one["score"]), 4),
                **{k: one[k] for k in ("word", "start", "end")},
            }
            for one in pipeline(text)
        ]
    )
    if text
    else "[]"
    for text in texts[:-1]  # the last is longer than the model takes
]
keep(
    "tokens",
    "tokens",
    format="transformers",
    rows={"text": np.array(texts[:-1], dtype=object)},
    expected={"entities": np.array(entities, dtype=object)},
    json=["entities"],
    served=True,
    damage=False,
)

model, folder = saved("embedding", "BertModel")
hidden = numbers(model, "last_hidden_state", texts)
keep(
    "embedding",
    "embedding",
    format="transformers",
    rows={"text": np.array(texts, dtype=object)},
    expected={"embedding": np.stack([each.mean(0) for each in hidden])},
    tolerance=CLOSE,
    served=True,
    damage=False,
)
model, folder = saved("sentences", "BertModel")
(folder / "1_Pooling").mkdir()
(folder / "1_Pooling" / "config.json").write_text(
    json.dumps({"pooling_mode_cls_token": True, "word_embedding_dimension": 32})
)
kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
(folder / "modules.json").write_text(
    json.dumps([{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds])
)
first = np.stack([each[0] for each in hidden])
keep(
    "sentences",
    "sentences",
    format="transformers",
    rows={"text": np.array(texts, dtype=object)},
    expected={"embedding": first / np.linalg.norm(first, axis=1, keepdims=True)},
    tolerance=CLOSE,
    damage=False,
)
