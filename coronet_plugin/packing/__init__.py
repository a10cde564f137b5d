"""``coronet pack``: a folder to share, with weights, spec, ONNX file and a card that says what they are."""
