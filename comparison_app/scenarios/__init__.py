"""The five systems that Versus grew from, one file each."""
