"""The command line and the control process. Holds no market data."""
