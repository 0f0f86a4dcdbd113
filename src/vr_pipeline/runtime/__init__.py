"""The process and the machine: environment, devices, memory, progress."""
