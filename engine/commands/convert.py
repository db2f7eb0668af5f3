"""`stackseg convert`: results in the formats of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command(short_help="Write a result in another format.")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--to", required=True,
              type=click.Choice(["tiff", "ctc", "csv", "geojson", "nifti", "dicom-seg"]),
              help="Label TIFFs, masks of the Cell Tracking Challenge, tables, outlines for "
                   "QuPath, NIfTI volumes, or DICOM segmentations.")  # fmt: skip
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Folder to write to.")  # fmt: skip
@click.option("--stack", metavar="NAME", help="Only this stack of the result.")
@click.option("--labels", metavar="NAME", help="Label image, where a stack has several.")
@click.option("--overwrite", is_flag=True, help="Replace files of an earlier conversion.")
def convert(result: Path, **options: Any) -> None:
    """Write RESULT, a job's folder or a NAME.zarr in it, in another format.

    \b
    tiff       NAME.ome.tif for each stack: 16-bit where all ids fit, else 32-bit
    ctc        01_RES/mask000.tif, ...: the Cell Tracking Challenge's segmentation masks
    csv        frames.csv and objects.csv
    geojson    NAME/t0000.geojson, ...: a polygon for each object along pixel edges, with measures
    nifti      NAME.nii.gz: a volume with the affine of its NIfTI or DICOM source
    dicom-seg  NAME.seg.dcm: a DICOM segmentation that refers to its source, a segment per class
    """
    from engine.job.progress import counter
    from engine.results.convert.run import convert

    with counter("file") as progress:
        paths = convert(result, progress=progress, **options)
    for path in paths:
        click.echo(path)
