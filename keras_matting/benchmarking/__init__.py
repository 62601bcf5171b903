"""Engines measured side by side: parity with Keras on photos first, then speed, then a choice with its reasons."""
