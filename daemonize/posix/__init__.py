"""The kernel's side: processes, descriptors, signals. No policy; nothing above makes a system call for a process."""
