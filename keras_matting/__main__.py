"""`python -m keras_matting`, the same as the command `keras-matting`."""

import sys

from keras_matting.cli import main

if __name__ == "__main__":
    sys.exit(main())
