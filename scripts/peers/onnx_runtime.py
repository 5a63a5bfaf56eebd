"""Competitor: onnxruntime, for prediction, on what `Network.to_onnx` writes. For sides and check."""

from __future__ import annotations

from .side import Side


def session(file, threads):
    """The network in a file as a session of onnxruntime with all its optimisations."""
    import onnxruntime

    import chaos

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    model = chaos.load(file).to_onnx().SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class OnnxPrediction(Side):
    def set_up(self):
        self.session = session(self.job["network"], self.threads)

    def advance(self, images):
        for part in self.batches(images):
            self.session.run(None, {"input": self.x[part]})
        return images // self.batch * self.batch
