"""A stand-in for what the driver uses of numpy."""

import os


class Rows(list):
    def tolist(self):
        return [list(row) for row in self]


class random:
    state = os.urandom(4).hex()  # of its global generator, drawn when numpy is imported

    @classmethod
    def seed(cls):
        cls.state = os.urandom(4).hex()

    @staticmethod
    def drawn():
        return random.state

    @staticmethod
    def randint(high, size):
        assert high == 10000, "`vllm bench latency` draws below 10,000"
        return Rows([[7] * size[1] for _ in range(size[0])])


def mean(values):
    return sum(values) / len(values)


def percentile(values, marks):
    return Rows2([sorted(values)[min(int(m / 100 * len(values)), len(values) - 1)] for m in marks])


class Rows2(list):
    def tolist(self):
        return list(self)
