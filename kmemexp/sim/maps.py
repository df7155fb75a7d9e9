"""The maps of a kernel by number: leaves that arenas, boot and results all name."""

KERNEL, KMEM, MB, CLEAN, BUFFER, PAGER, EXEC, DIRECT, PIPE = range(9)
MAP_NAMES = (
    "kernel_map", "kmem_map", "mb_map", "clean_map", "buffer_map", "pager_map", "exec_map", "direct_map", "pipe_map",
)  # fmt: skip
PRIVATE = (CLEAN, BUFFER, PAGER, EXEC, PIPE)  # maps of one purpose, whose free space serves nobody else
