"""Label Studio's JSON, XML and brush RLE <-> our types; percent and pixels meet nowhere else."""
