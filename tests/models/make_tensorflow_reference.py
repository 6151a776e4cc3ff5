"""Write tests/models/reference/: checkpoints and outputs of the quantised networks by TensorFlow.

Run by hand, with tensorflow-cpu installed (it is no dependency): the graphs are built with
TensorFlow's own operations from the description of the two models, at a width of 4.

python tests/models/make_tensorflow_reference.py
"""

import os
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf

tf1 = tf.compat.v1
tf1.disable_eager_execution()
FOLDER = Path(__file__).parent / "reference"
WIDTH, ALPHA = 4, 1e8


def variable(name, shape, rng):
    leaf = name.rsplit("/", 1)[1]
    if leaf == "DN_Variance":
        start = 1 + 0.1 * rng.standard_normal(shape)
    elif leaf in ("DN_Mean", "biases"):
        start = 0.1 * rng.standard_normal(shape)
    else:
        fan = np.prod(shape[:-2]) * shape[-1] if len(shape) == 4 else shape[0]
        start = rng.standard_normal(shape) * np.sqrt(2 / fan)
    initial = tf1.constant_initializer(start.astype(np.float32))
    return tf1.get_variable(name, shape, initializer=initial)


def batch_norm(x, scope, rng):
    c = x.shape[-1]
    shift = variable(f"{scope}/BN/DN_Mean", [1, 1, 1, c], rng)
    scale = variable(f"{scope}/BN/DN_Variance", [1, 1, 1, c], rng)
    mean, var = tf1.nn.moments(x, [0, 1, 2], keepdims=True)
    return (x - mean) / tf.sqrt(var + 1e-9) * scale + shift


def conv(x, name, size, outputs, stride, rng):
    kernel = variable(name, [size, size, x.shape[-1], outputs], rng)
    return tf1.nn.conv2d(x, kernel, [1, stride, stride, 1], "SAME")


def silu(x):
    return x * tf.sigmoid(x)


def quantise(v):
    largest = tf.reduce_max(tf.abs(v))
    s = v / (largest + 1e-9)
    s = tf.where(tf.abs(s) > 1, tf.sign(s), s)
    below = 0.1 * tf.round(s / 0.1)
    return largest * (below + 0.1 * (1 / (1 + tf.exp(-ALPHA * (s - below)))))


def unit(x, scope, outputs, stride, rng):
    h = silu(batch_norm(x, f"{scope}/residual_only_activation", rng))
    h = conv(h, f"{scope}/sub1/conv1/DW", 3, outputs, stride, rng)
    h = silu(batch_norm(h, f"{scope}/sub2", rng))
    h = conv(h, f"{scope}/sub2/conv2/DW", 3, outputs, 1, rng)
    inputs = x.shape[-1]
    skip = tf1.nn.avg_pool2d(x, 2, 2, "VALID") if stride == 2 else x
    if inputs != outputs:
        skip = conv(skip, f"{scope}/sub_add/conv_1x1/DW", 1, outputs, 1, rng)
    return h + skip


def chain(x, scope, outputs, rng):
    c = x.shape[-1]
    for number, width in enumerate((2 * c, 2 * c, c), 1):
        x = silu(conv(x, f"{scope}/sub{number}/conv{number}/DW", 3, width, 1, rng))
    return conv(x, f"{scope}/sub4/conv4/DW", 3, outputs, 1, rng)


def trio(x, name, channels, between, active, rng):
    q = quantise if active else tf.identity
    x = q(unit(x, f"block_1_{name}_sub_0", channels, 1, rng))
    x = chain(x, f"block_2_{name}", between, rng)
    return q(unit(x, f"block_3_{name}_sub_0", channels, 1, rng))


def network(x, model, active):
    rng = np.random.default_rng(model)
    repeats = 2 if model == 1 else 5
    w = WIDTH
    x = trio(x, "layer_1", w, 3, active, rng)
    x = unit(x, "stride_1", 2 * w, 2, rng)
    for i in range(repeats):
        x = trio(x, f"layer_2_{i}", 2 * w, 2 * w, active, rng)
    x = unit(x, "stride_2", 4 * w, 2, rng)
    x = trio(x, f"layer_3_{repeats - 1}", 4 * w, 4 * w, active, rng)
    x = unit(x, "stride_3", 8 * w, 2, rng)
    for i in range(2 if model == 1 else 5):
        if model == 1:
            x = trio(x, f"layer_4_{i}", 8 * w, 8 * w, active, rng)
        else:
            x = unit(x, f"block_1_layer_4_{i}_sub_0", 8 * w, 1, rng)
    x = tf.reduce_mean(silu(batch_norm(x, "unit_last", rng)), [1, 2])
    weight = variable("logit/FC/DW", [8 * w, 10], rng)
    return tf.matmul(x, weight) + variable("logit/FC/biases", [10], rng)


def main():
    FOLDER.mkdir(exist_ok=True)
    images = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    labels = np.array([3, 1, 4, 1])
    for model in (1, 2):
        graph = tf.Graph()
        with graph.as_default(), tf1.Session(graph=graph) as session:
            x = tf1.placeholder(tf.float32, [None, 32, 32, 3])
            found = {}
            with tf1.variable_scope("", reuse=tf1.AUTO_REUSE):
                for word, active in (("plain", False), ("quantised", True)):
                    logits = network(x, model, active)
                    loss = tf.reduce_sum(
                        tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
                    )
                    found[f"{word}_logits"] = logits
                    found[f"{word}_gradient"] = tf1.gradients(loss, x)[0]
            session.run(tf1.global_variables_initializer())
            values = session.run(found, {x: images})
            folder = FOLDER / f"model_{model}"
            folder.mkdir(exist_ok=True)
            tf1.train.Saver().save(session, str(folder / "checkpoint-0"), write_meta_graph=False)
            (folder / "checkpoint").unlink()  # it names this machine's folders
        assert np.isnan(values.pop("quantised_gradient")).all()
        np.savez_compressed(FOLDER / f"model_{model}.npz", images=images, labels=labels, **values)
    with tf1.Session(graph=tf.Graph()) as session:
        v = np.random.default_rng(9).standard_normal((5, 7, 23, 5)).astype(np.float32)
        v.flat[:3] = 0, np.abs(v).max() * 1.1, -np.abs(v).max() * 1.1
        grid = np.linspace(-1, 1, 21, dtype=np.float32) * np.abs(v).max()
        v.flat[3:24] = grid
        place = tf1.placeholder(tf.float32, v.shape)
        np.savez_compressed(
            FOLDER / "quantiser.npz", v=v, y=session.run(quantise(place), {place: v})
        )
    print(tf.__version__)


if __name__ == "__main__":
    main()
