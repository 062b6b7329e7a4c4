# Reference values for tests/uncertainty/test_novelty_reference.py, by base R (4.2.2) from the published formulas:
#   Rscript reference.R > result.csv
# Dissimilarity index, threshold and point density: Meyer & Pebesma 2021, as in CAST 1.1 (trainDI, aoa).
# MESS: Elith et al. 2010, as in dismo (findInterval). ExDet: Mesgaran et al. 2014, with mahalanobis().
sites <- read.csv("sites.csv")
cells <- read.csv("cells.csv")
names <- c("a", "b", "c", "d")
fold <- sites$fold

dissimilarity <- function(names, folds, weights = rep(1, length(names))) {
  train <- scale(sites[, names])
  new <- scale(cells[, names], attr(train, "scaled:center"), attr(train, "scaled:scale"))
  train <- sweep(train, 2, weights, "*")
  new <- sweep(new, 2, weights, "*")
  m <- nrow(train)
  between <- as.matrix(dist(train))
  diag(between) <- NA
  average <- mean(rowMeans(between, na.rm = TRUE))
  nearest <- sapply(1:m, function(i) {
    row <- between[i, ]
    if (folds) row[fold == fold[i]] <- NA
    min(row, na.rm = TRUE)
  })
  index <- nearest / average
  threshold <- min(quantile(index, 0.75) + 1.5 * IQR(index), max(index))
  to <- as.matrix(dist(rbind(new, train)))[1:nrow(new), nrow(new) + 1:m] / average
  di <- apply(to, 1, min)
  cbind(di, as.integer(di <= threshold), rowSums(to < threshold))
}

mess <- function(names) {
  one <- function(p, v) {
    f <- 100 * findInterval(p, sort(v)) / length(v)
    ifelse(f == 0, 100 * (p - min(v)) / (max(v) - min(v)),
      ifelse(f <= 50, 2 * f,
        ifelse(f < 100, 2 * (100 - f), 100 * (max(v) - p) / (max(v) - min(v)))))
  }
  values <- sapply(names, function(n) one(cells[[n]], sites[[n]]))
  cbind(apply(values, 1, min), apply(values, 1, which.min) - 1)
}

exdet <- function(names) {
  x <- as.matrix(cells[, names])
  train <- as.matrix(sites[, names])
  low <- apply(train, 2, min)
  high <- apply(train, 2, max)
  beyond <- sapply(seq_along(names), function(j) {
    pmin(x[, j] - low[j], high[j] - x[, j], 0) / (high[j] - low[j])
  })
  type1 <- rowSums(beyond)
  squared <- function(k) mahalanobis(x[, k, drop = FALSE], colMeans(train[, k, drop = FALSE]),
    cov(train[, k, drop = FALSE]))
  all <- seq_along(names)
  type2 <- squared(all) / max(mahalanobis(train, colMeans(train), cov(train)))
  without <- sapply(all, function(j) (squared(all) - squared(all[-j])) / squared(all))
  value <- ifelse(type1 < 0, type1, type2)
  influential <- ifelse(type1 < 0, apply(beyond, 1, which.min), apply(without, 1, which.max)) - 1
  cbind(value, ifelse(value < 0 | value > 1, influential, -1))
}

result <- cbind(
  dissimilarity(names, TRUE), dissimilarity(names, FALSE),
  dissimilarity(c("a", "c"), TRUE), dissimilarity(names, TRUE, c(3, 1, 0, 0.5)),
  mess(names), exdet(names), exdet(c("b", "c", "d"))
)
colnames(result) <- c(
  paste0(rep(c("folds", "loo", "ac", "weighted"), each = 3), c("_index", "_inside", "_density")),
  "mess", "mess_variable", "exdet", "exdet_variable", "bcd_exdet", "bcd_exdet_variable"
)
write.csv(signif(result, 12), quote = FALSE, row.names = FALSE)
