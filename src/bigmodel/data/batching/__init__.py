"""From samples as they are stored to batches: order, augmentation, blocks, buckets, prefetching."""
