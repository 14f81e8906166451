"""Triton as a system under test: ``tritonserver`` out of the wheel of ``nvidia-pytriton``.

It needs no GPU. The only backend in the wheel is that of Python, so the same ONNX files run in ONNX Runtime
inside of it, as :mod:`.servable`. ``make bench-triton`` installs it all beside the environment, because its
Python backend needs a NumPy before 2.
"""
