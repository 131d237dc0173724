"""From C text to machine code: processor table, compiler, object cache, linker, and the executor that runs a plan."""
