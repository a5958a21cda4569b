"""The nodes of the DAG: one public function a file, named as the file, from paths and settings to paths."""
