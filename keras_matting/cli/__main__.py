"""`python -m keras_matting.cli`, as `python -m keras_matting` the same as the command `keras-matting`."""

import sys

from keras_matting.cli import main

sys.exit(main())
