"""What reads the samples of a data set, one file per form: texts, arrays, images, recordings, boxes."""
