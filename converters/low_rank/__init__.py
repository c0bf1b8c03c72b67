"""What formats share that hold low-rank updates and nothing else: MLX, GGUF, state dicts, files for diffusion models.

Each of them has its own file with its names and its scale (dialect.py tells the contract); what their tensors mean as
an adapter is written here once (updates.py), and so is the note that keeps what a format has no word for (notes.py).
"""
