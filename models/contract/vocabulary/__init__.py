"""The ops that models are written in, one file each: the record and the public function."""
