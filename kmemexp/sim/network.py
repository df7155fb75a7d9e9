"""Sizes of the BSD kernels' network buffers."""

MSIZE = 256  # an mbuf
MCLBYTES = 2048  # a cluster
MJUMPAGESIZE = 4096  # a jumbo cluster of FreeBSD since 2005
MJUM9BYTES = 9 * 1024
MJUM16BYTES = 16 * 1024
JUMBO = (MJUMPAGESIZE, MJUM9BYTES, MJUM16BYTES)
