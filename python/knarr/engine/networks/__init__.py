"""Networks: the three that every engine has (bridge, host, none), and the addresses of the first."""
