"""What a data set holds and what is wrong with it, printed, drawn and mended."""
