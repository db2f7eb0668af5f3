"""DICOM: a file of one or many frames, or a folder of the files of a series.

    library.py     pydicom, imported when the first DICOM file is opened
    header.py      what a file is, where its pixels lie, and that they fit into it
    fragments.py   where each frame lies in compressed pixels
    planes.py      where a frame lies in the patient and in time, as far as that sorts it
    arrange.py     planes to T and Z: sorted by position, gaps and doubles named
    pixels.py      one frame decoded: colours, modality LUT, 0 is white
    series.py      which files of a folder are a stack
    stack.py       the stack

Nothing that names a patient, a study or a date is read: the parser skips all elements but those
that the list in `header.py` names. The UIDs that it must read, to tell series apart, stay inside.
"""
