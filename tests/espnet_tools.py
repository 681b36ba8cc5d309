"""ESPnet's tools as the dispatcher runs them, in the tests' own process."""

from espnet_star.bin import espnet_tool


class Tool:
    """A tool of ``espnet2.bin`` with our classes registered."""

    def __init__(self, name):
        self.name = name

    def main(self, cmd):
        """Run it."""
        espnet_tool.run(self.name, cmd)


asr_train, cls_train, spk_train = (Tool(f"{task}_train") for task in ("asr", "cls", "spk"))
asr_inference, cls_inference = (Tool(f"{task}_inference") for task in ("asr", "cls"))
