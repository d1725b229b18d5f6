"""VGGT as an ONNX file: ``export`` writes it (torch), ``onnx_file`` reads what it says about itself (no torch)."""
