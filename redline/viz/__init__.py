"""Reports and pictures: measured facts in, one self-contained HTML page out. Nothing here measures anything."""
