"""The schema of predictors: variables, modalities and groups; catalogs and their messages."""
