"""Training data: where samples come from, how they are augmented, and the tf.data pipelines."""
