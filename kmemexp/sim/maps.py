"""The maps of a kernel by number: leaves that arenas, boot and results all name."""

KERNEL, KMEM, MB, CLEAN, BUFFER, PAGER, EXEC, DIRECT = range(8)
MAP_NAMES = ("kernel_map", "kmem_map", "mb_map", "clean_map", "buffer_map", "pager_map", "exec_map", "direct_map")
PRIVATE = (CLEAN, BUFFER, PAGER, EXEC)  # maps of one purpose, whose free space serves nobody else
