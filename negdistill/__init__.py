"""What the wrong answers of a teacher are worth: NAT, NCE and ASC in PyTorch."""
