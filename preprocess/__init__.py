"""Raw data, photos and the embedded data set -> HDF5 in the ST-ED layout (`python -m preprocess --help`)."""
