"""The picture room: file -> tensor -> engine -> tensor -> file.

Nothing is imported here: the command line needs `restore.image.events` before it needs torch.
"""
