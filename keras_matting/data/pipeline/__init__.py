"""Training pictures as tf.data pipelines: read, placed, coloured, batched."""
