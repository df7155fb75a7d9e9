"""Sizes of the BSD kernels' network buffers, i386."""

MSIZE = 256  # an mbuf
MCLBYTES = 2048  # a cluster
