"""Virtual trees to be published: normalising policy and catalog split."""
