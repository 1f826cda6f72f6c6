"""Other programs than PyTorch that compute a method's network.

The method keeps one network, in PyTorch (`restore.method.Exportable`); here it becomes an ONNX
graph (`graph`), whole numbers of 8 bits where that is asked for (`quantize`, with the pictures of
`calibration`), and ONNX Runtime computes it in the place of the original (`onnx_runtime`). What
was made is kept in a folder for the next run (`cache`).
"""
