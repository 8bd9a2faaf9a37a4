"""What the tests share: processes seen through /proc, the installed command, the programs, ports, the guards."""
