"""TIFF in all its dialects: plain multi-page, ImageJ, OME-TIFF, Micro-Manager, BigTIFF, packed.

    file --chain--> directories to trust --images--> images --choice--> stacks
                                                                   \\--> sentences on the rest

tifffile says what a file holds and decodes it; these modules distrust the file. Opening notes
where each page lies and closes the file again; the first read opens it. Pages are parsed when they
are read and then forgotten, so that memory does not grow with the number of frames read.
"""
