"""A stand-in for torch that has one GPU."""

__version__ = "2.0.0+fake"


class cuda:
    @staticmethod
    def is_available():
        return True

    @staticmethod
    def memory_allocated(device):
        return 1000

    @staticmethod
    def memory_reserved(device):
        return 2000

    @staticmethod
    def max_memory_allocated(device):
        return 1500

    @staticmethod
    def mem_get_info(device):
        return 7000, 10000

    @staticmethod
    def reset_peak_memory_stats(device):
        pass

    @staticmethod
    def get_device_properties(device):
        return Properties


class Properties:
    total_memory, name, multi_processor_count, major, minor = 10000, "fake GPU", 1, 9, 0
