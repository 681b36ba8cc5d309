"""The voices of "Flight of the Amazon Queen", as egs2/amazon_queen/star1 prepares them."""

from espnet_star.espnet3.dataset import Dataset

from .builder import AmazonQueenBuilder as DatasetBuilder

__all__ = ["Dataset", "DatasetBuilder"]
