"""Draw a batch of images, shared among the devices of all hosts of a job."""
