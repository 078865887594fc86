"""Batches of stored samples: order, augmentation, blocks, buckets, prefetching."""
