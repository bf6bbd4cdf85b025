"""Commands around the committed runs: nobody imports these modules but their tests."""
