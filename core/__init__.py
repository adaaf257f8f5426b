"""Between command and network: settings, what they mean, training, evaluation, reports."""

import os

# Every command comes by here before torch is loaded, and OpenMP looks then. Its threads wait for each other after every
# operation, spinning; where another program has one of the cores, for most of a step (benchmarks/speed.md).
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # GNU's: rounds of a loop
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # Intel's and LLVM's: milliseconds
# And before OpenCV is: of an image, which in memory is of 600 MB then. A file of 10 MB can say that it has 900 million.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "200000000")
