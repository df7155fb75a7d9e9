"""Sizes of the BSD kernels' network buffers."""

MSIZE = 256  # an mbuf
MCLBYTES = 2048  # a cluster
PACKET = MSIZE + MCLBYTES  # both, as m_getcl() gets them in one request
MJUMPAGESIZE = 4096  # a jumbo cluster of FreeBSD since 2005
MJUM9BYTES = 9 * 1024
MJUM16BYTES = 16 * 1024
JUMBO = (MJUMPAGESIZE, MJUM9BYTES, MJUM16BYTES)
